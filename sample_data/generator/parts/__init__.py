"""Part families: each a function (pose, grid, rng) -> Surface and the set-up of its capture station."""
