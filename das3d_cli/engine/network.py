"""Settings into a network."""

from __future__ import annotations

from das3d_cli.model import Das3d
from das3d_cli.settings import Settings


def build_network(settings: Settings) -> Das3d:
    """The network that the settings describe, freshly initialised."""
    m = settings.model
    return Das3d(
        modality=m.modality,
        stem=m.stem,
        reconstruction_shrink=m.reconstruction_shrink,
        reconstruction_width=m.reconstruction_width,
        discriminator_width=m.discriminator_width,
        discriminator_levels=m.discriminator_levels,
        direct_inputs=m.direct_inputs,
        template=m.template,
        size=m.size,
    )
