"""Every shape that crosses a border: envelopes, manifests, run events, problems, and the SDK that modules import.
Lowest floor; imports nothing above it.
"""
