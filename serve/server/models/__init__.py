"""The models of one server: what each is, and how requests wait for it and share its runs."""
