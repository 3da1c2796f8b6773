"""§3.4: faces in frames. Read: landmarker (the model), detection, alignment, tracking."""
