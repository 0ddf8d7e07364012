"""CMAF (ISO/IEC 23000-19): init segments and fragments."""
