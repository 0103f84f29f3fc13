package state_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

func TestOmissionsInOneLine(t *testing.T) {
	for name, test := range map[string]struct {
		list []v1alpha1.Omission
		want string
	}{
		"none":                {nil, ""},
		"one without a name":  {[]v1alpha1.Omission{{Reason: "Device", Count: 1}}, "1 Device"},
		"all named":           {[]v1alpha1.Omission{{Reason: "HardLink", Count: 2, Examples: []string{`"a"`, `"b"`}}}, `2 HardLink ("a", "b")`},
		"more than are named": {[]v1alpha1.Omission{{Reason: "HardLink", Count: 9, Examples: []string{`"a"`, `"b"`, `"c"`, `"d"`}}}, `9 HardLink ("a", "b", "c", ...)`},
		"two reasons": {
			[]v1alpha1.Omission{{Reason: "Device", Count: 1}, {Reason: "HardLink", Count: 2, Examples: []string{strings.Repeat("x", 81)}}},
			"1 Device, 2 HardLink",
		},
		"one that breaks lines": {[]v1alpha1.Omission{{Reason: "Device", Count: 1, Examples: []string{"a\nlevel=error\x1b"}}}, "1 Device (a?level=error?)"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, state.Omitted(test.list)) })
	}

	many := make([]v1alpha1.Omission, 100)
	for i := range many {
		many[i] = v1alpha1.Omission{Reason: "ExtendedAttributes", Count: 1}
	}

	assert.Less(t, len(state.Omitted(many)), 1000)
}
