"""The face branch and what it is made of: finders, landmarks, blendshapes, alignment, tracking."""

from ecmf.branches.face.branch import FaceBranch

__all__ = ["FaceBranch"]
