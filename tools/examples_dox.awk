# Makes pages of the examples, for doxygen: of each, what its first comment says.
BEGIN { print "/** @namespace xtcp\nAll of the library. */" }
FNR == 1 {
  name = FILENAME
  sub(/.*\//, "", name)
  printf "/** @example %s\n", name
  inside = 1
}
inside && /^\/\/ / { print substr($0, 4); next }
inside { print "*/"; inside = 0 }
