"""Where pictures and sound come from: cameras, microphones, files, the demo; all alike to whoever reads them."""
