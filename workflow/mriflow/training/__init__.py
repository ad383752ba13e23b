"""What a training is made of: input, networks, objectives, the loop, checkpoints, processes."""
