package volumeselect

import (
	"path"
	"strings"
)

// match says how a list of names and globs matches a volume's name.
type match int

const (
	matchNone match = iota
	matchGlob
	matchName
)

// patterns reads the value of an annotation: names and globs, separated by
// commas. Spaces around them are ignored, and so are empty ones.
func patterns(value string) []string {
	var list []string

	for p := range strings.SplitSeq(value, ",") {
		if p = strings.TrimSpace(p); p != "" {
			list = append(list, p)
		}
	}

	return list
}

func isGlob(p string) bool { return strings.ContainsAny(p, `*?[\`) }

// matches returns the strongest match of the list: a name counts for more than a glob.
// Globs that can't be read match nothing; Strays reports them.
func matches(list []string, name string) match {
	best := matchNone

	for _, p := range list {
		if p == name {
			return matchName
		}

		if ok, err := path.Match(p, name); err == nil && ok {
			best = matchGlob
		}
	}

	return best
}

func badGlob(p string) bool {
	_, err := path.Match(p, "")

	return err != nil
}
