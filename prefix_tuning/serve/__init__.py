"""Many prefixes on one frozen model, served over HTTP as OpenAI's API names models.

====================  ========================================================================
``rows.py``           keys and values of the running rows, which join and leave between steps
``generation.py``     the texts of one row (greedy or drawn) or of one beam search
``sampling.py``       drawing the next token, whatever the rows beside it
``engine.py``         the queue and the thread that decodes
``protocol.py``       what a request may say, and what an error looks like
``service.py``        from the body of a request to its answer
``app.py``            the HTTP routes
``metrics.py``        counters in Prometheus' text format
====================  ========================================================================
"""
