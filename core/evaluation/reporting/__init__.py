"""§4.5-4.6: a report of finished runs (`report`), its figures, and r (`calibration_share`)."""
