"""Programs that measure what the project claims; each prints its figures and keeps them in
`results/`.
"""
