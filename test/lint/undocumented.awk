# Prints the public names that have no comment, from doxygen's XML: awk -f undocumented.awk FILE.xml...
# A destructor needs none, and what overrides has that of what it overrides.

function attribute(key) {
  return match($0, " " key "=\"[a-z]*\"") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 4) : ""
}

# A class holds members, and an enumeration, which is a member, its values.
/<(compounddef|memberdef|enumvalue) / {
  ++depth
  private[depth] = attribute("prot") == "private" || depth > 1 && private[depth - 1]
  exempt[depth] = private[depth] || attribute("kind") ~ /^(dir|example|file|friend|namespace|page)$/
  name[depth] = ""
  said[depth] = 0
}
/<(compoundname|name)>/ && depth && name[depth] == "" {
  name[depth] = $0
  gsub(/ *<[^>]*>/, "", name[depth])
}
/<reimplements / { exempt[depth] = 1 }

/<(brief|detailed)description>/ { describes = 1 }
/<para>/ && describes { said[depth] = 1 }
/<\/(brief|detailed)description>/ { describes = 0 }

/<\/(compounddef|memberdef|enumvalue)>/ {
  if (!said[depth] && !exempt[depth] && name[depth] !~ /^~/) {
    path = name[1]
    for (i = 2; i <= depth; i++) path = path "::" name[i]
    print path
  }
  --depth
}
