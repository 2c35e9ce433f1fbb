"""Tables of rules that are tried in order: regexp, pcre, cidr."""
