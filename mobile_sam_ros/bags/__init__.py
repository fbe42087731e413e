"""Recorded bags: segmented after the fact, and reported on. Nothing in here needs rclpy."""
