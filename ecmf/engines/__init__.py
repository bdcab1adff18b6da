"""Compiled encoders behind one interface: numpy in, numpy out."""
