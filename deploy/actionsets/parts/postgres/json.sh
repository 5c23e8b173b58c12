# A value of flat JSON: field NAME FILE
field() { grep -o "\"$1\": *\"[^\"]*\"" "$2" | head -n 1 | sed 's/^"[^"]*": *"//; s/"$//'; }
