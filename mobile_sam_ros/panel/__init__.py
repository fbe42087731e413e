"""The panel: a web page, served by the robot, to see what is segmented and say what should be."""
