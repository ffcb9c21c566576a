"""3D-aware GANs as PyTorch Lightning modules on one pluggable renderer."""
