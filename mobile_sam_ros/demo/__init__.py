"""The demo: a camera, a detector and a recorder around the node, each a process of its own.

`python3 -m mobile_sam_ros.demo.run` starts them all, waits for the end and reports.
"""
