"""The fleet: protocol, controller, agent and telemetry for devices managed over MQTT."""
