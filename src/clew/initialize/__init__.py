"""Policy initialisation (roadmap section 3): corpora, chat format, the six reasoning behaviours."""
