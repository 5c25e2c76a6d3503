"""What is done: the steps of stages 1 to 3, one file each."""
