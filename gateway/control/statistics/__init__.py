"""Sequential statistics for rollouts: values in, values out; numpy and nothing else."""
