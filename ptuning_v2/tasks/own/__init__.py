"""Files of one's own: texts to classify, words to tag."""
