"""Options of connections and of the section ``[fluxomail]``: their table, form, readers and test."""
