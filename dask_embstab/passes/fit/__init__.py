"""The passes of a fit, from moments to diagnostics."""
