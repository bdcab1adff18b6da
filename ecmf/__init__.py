"""What is computed: labels, branches, engines, bundles, weights and fusion. No thread, device, socket or clock."""

__version__ = "0.1.0"
