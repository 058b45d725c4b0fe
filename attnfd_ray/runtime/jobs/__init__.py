"""Jobs: the broker between driver and worker groups, what a worker does, and failure handling."""
