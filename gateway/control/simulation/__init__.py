"""What a rollout plan would do, before it is let loose: the rollout's own code, on a stream recorded or made up."""
