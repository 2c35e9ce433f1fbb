"""Delivery status: enhanced codes and the reports that tell senders what happened."""
