"""MobileSAM as a library: encode an image once, segment whatever is pointed at. No ROS in here."""
