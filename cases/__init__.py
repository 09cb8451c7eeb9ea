"""Case files that ship with dawndusk."""
