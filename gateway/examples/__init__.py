"""Example models, trained on data that scikit-learn ships. Run in a process of their own; nothing imports them."""
