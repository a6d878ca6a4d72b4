"""A version at work: engines, batches, leases, and the fleet that holds them."""
