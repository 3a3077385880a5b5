package scan

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files returns what is found in the regular files under the directories, and how many files there were: a search of
// nothing finds nothing. A database's freed pages, its WAL and journals are bytes of its files like any other. A file that
// ends while it is read, as a running process's temporary ones do, is passed over.
func (s *Scanner) Files(directories ...string) (hits []Hit, files int, err error) {
	for _, directory := range directories {
		err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && path != directory {
				return nil
			}
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			files++
			hits = append(hits, s.Text(text, path)...)
			hits = append(hits, LabelledCodes(text, path)...)
			return nil
		})
		if err != nil {
			return hits, files, fmt.Errorf("scan: %w", err)
		}
	}
	return hits, files, nil
}
