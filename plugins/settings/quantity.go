package settings

import (
	"errors"
	"fmt"
	"regexp"

	"k8s.io/apimachinery/pkg/api/resource"
)

// maxQuantity is more characters than any amount of bytes or cores takes.
const maxQuantity = 40

// hugeExponent finds a power of ten of three digits or more.
var hugeExponent = regexp.MustCompile(`[eE][+-]?[0-9]{3}`)

// Quantity reads a quantity that people have written. Kubernetes' own reader takes
// 1e99999999, too, and works for minutes with a hundred million digits as soon as
// it is compared or printed: what no volume and no node can have is refused here.
func Quantity(text string) (resource.Quantity, error) {
	if len(text) > maxQuantity || hugeExponent.MatchString(text) {
		return resource.Quantity{}, errors.New("it is beyond any size that there is")
	}

	q, err := resource.ParseQuantity(text)
	if err != nil {
		return q, fmt.Errorf("read a quantity: %w", err)
	}

	return q, nil
}
