"""How a policy learns: advantages, losses and KL as pure functions; batches, optimiser, schedule and guard.

The training loop is not here: it lives in the recipe.
"""
