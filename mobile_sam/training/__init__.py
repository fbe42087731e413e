"""Training on procedural scenes, and measuring what came of it."""
