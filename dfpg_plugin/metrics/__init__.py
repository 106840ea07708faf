"""Measures of restored faces: of single images, and of whole sets."""
