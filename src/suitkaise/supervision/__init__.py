"""Supervisors at work: carry out what the policy decides, detect hangs, report crashes."""
