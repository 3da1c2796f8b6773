"""§3.4: a frame to facial landmarks and an aligned face. Read: landmarker, detection, alignment, tracking."""
