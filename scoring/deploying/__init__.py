"""What targets of all packages share: settings of a deployment, and what is said of what runs."""
