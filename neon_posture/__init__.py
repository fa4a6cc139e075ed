"""What a stack demands of a Neon project, as a Pulumi resource over the runbooks' own client."""

from neon_posture.resource import NeonPosture

__all__ = ["NeonPosture"]
