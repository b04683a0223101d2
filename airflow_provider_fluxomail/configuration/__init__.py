"""Options, connection and the section ``[fluxomail]``."""
