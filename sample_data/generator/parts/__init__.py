"""Part families: each a function (pose, grid, rng) -> Surface, and how its capture station is set up."""
