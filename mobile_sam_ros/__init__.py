"""The ROS 2 layer: messages in, `mobile_sam` called, messages out. No tensor code in here."""

from pkgutil import extend_path

# Seen from a checkout, the generated mobile_sam_ros.msg and .srv lie elsewhere on the path.
__path__ = extend_path(__path__, __name__)
