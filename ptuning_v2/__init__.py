"""P-tuning v2: trained keys and values in every layer of a frozen encoder, for understanding."""
