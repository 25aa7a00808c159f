"""Mixed precision: which arithmetic runs in which floating-point type."""

__all__: list[str] = []
